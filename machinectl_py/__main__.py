"""`python -m machinectl_py`: the same as `pymachine`."""

from machinectl_py.cli.main import main

main()
