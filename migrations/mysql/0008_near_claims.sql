-- What lies near a row or an event is found by its token and counts, within a bucket of some hours: it costs what it
-- finds, however many calls the hours hold. One statement, so that it is there as a whole or not at all; repeated, it
-- finds its work done. Statements name these indexes, and so their names bear no schema's.

ALTER TABLE hookledger_claims
  ADD COLUMN call_bucket BIGINT GENERATED ALWAYS AS (call_second DIV 16384) VIRTUAL,
  ADD INDEX near_event (call_bucket, remote_key_id, prompt_tokens, completion_tokens, call_second),
  DROP INDEX hookledger_claims_untied_row,
  ADD INDEX untied_row (call_bucket, untied_row_token, prompt_tokens, completion_tokens, call_second)
