"""Files, folders, devices and signals: nothing of this field."""
