"""What goes to a device: how each runtime loads, runs and profiles a file. Flat there, a package here."""
