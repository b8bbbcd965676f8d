-- Reads: vendor_scorecard.
SELECT * FROM vendor_scorecard ORDER BY vendor
