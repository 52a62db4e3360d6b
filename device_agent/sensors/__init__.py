"""Where a board's power can be read: one file a source, all behind `base.PowerSource`."""
