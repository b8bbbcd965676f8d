-- What `anew` was made of takes as much memory again.
DROP TABLE looked CASCADE
