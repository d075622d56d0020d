"""Ways to resample, behind one signature. `augkit.resample` chooses among them."""
