import typer


def hello(name: str = "mm") -> None:
    """Greet."""
    typer.echo(f"hello {name}")
