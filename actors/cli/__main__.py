"""`python -m actors.cli` is `orchestra`."""

from actors.cli.main import main

main()
