"""What is simulated: a RAM size, copied /proc files or a snapshot become the state a machine starts from."""

from mmfw.machine.load import PRESETS, Machine, load_machine, machine_from_ram

__all__ = ["PRESETS", "Machine", "load_machine", "machine_from_ram"]
