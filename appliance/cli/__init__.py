"""`septum`, the command on the box."""
