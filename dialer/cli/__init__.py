"""The command line: `commands` is the table of all of them; each part is a module of its own."""
