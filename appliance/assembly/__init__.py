"""From component.toml files and an assembly file to a ``ValidatedAssembly``, the only thing the monitor builds."""
