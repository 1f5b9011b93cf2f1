"""Where weights come from. Every format becomes one `source.Source`, which `checkpoint` loads."""
