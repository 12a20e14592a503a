"""Runs on disk: the folder and what is finished in it, and what a result depends on."""
