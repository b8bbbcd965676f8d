-- How many clips of the window each reason kept out; the reason is null for the eligible.
SELECT reason, count(*) AS clips FROM judged GROUP BY reason
