-- The name of each stratum's number. Reads: naming.
CREATE TEMP TABLE stratum AS SELECT DISTINCT stratum_no, stratum FROM naming
