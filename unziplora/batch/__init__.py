"""Many images over many workers: `unziplora batch`."""
