"""Files, folders, YAML, devices and signals: nothing that knows of models or items."""
