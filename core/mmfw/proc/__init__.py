"""The kernel's text formats, both directions: /proc text as typed data, and back to the same bytes."""
