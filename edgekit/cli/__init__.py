"""The command line: ``app.py`` puts the commands together, one file each; ``common.py`` is what they share.

views/       what a person sees: progress, tables, messages
streams.py   who may write to the terminal while a run goes on
explain.py   what a person is told when a command fails
"""
