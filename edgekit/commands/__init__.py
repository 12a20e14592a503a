"""The commands, one file each: ``common.py`` is what they share, ``edgekit/cli.py`` puts them together."""
