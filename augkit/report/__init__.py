"""Numbers to figures to one HTML file. Numbers are computed elsewhere; nothing here trains or measures."""
