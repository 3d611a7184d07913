"""The verbs of the command line, one file each: `commands/<verb>.py` holds one click command named `<verb>`."""
