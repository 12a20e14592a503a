"""Settings as plain data, without torch: configfile.py reads YAML, settings.py has what stages share."""
