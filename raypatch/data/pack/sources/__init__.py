"""Where own images come from: folders with classes, a table, PatchCamelyon's files; listed before they are read."""
