"""The export to ArviZ and to netCDF."""
