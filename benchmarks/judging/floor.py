"""One pass as somebody would write it by hand in DuckDB: every row judged, ids unique, a quarantine table of reasons."""
