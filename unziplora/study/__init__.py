"""A blind comparison of methods by people, as the paper's Tables 1 and 3: `unziplora study`."""
