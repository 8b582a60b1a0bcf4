"""pymachine: system containers that boot a whole distribution, supervised by systemd."""

__version__ = "0.1.0"
