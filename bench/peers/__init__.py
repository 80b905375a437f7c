"""Other tools' ways to cut a model, one file each: from their own package where pip has it, else by their published formula."""
