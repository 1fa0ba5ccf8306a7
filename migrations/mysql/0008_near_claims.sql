-- What lies near a row or an event is found by its token and counts, within a bucket of an hour or so: it costs what it
-- finds, however many calls the hour holds. The column is stored, since servers of some versions lose their way with
-- indexes on columns that are not. Statements name these indexes, and so their names do not begin as those of tables do.

ALTER TABLE hookledger_claims
  ADD COLUMN call_bucket BIGINT GENERATED ALWAYS AS (call_second DIV 4096) STORED,
  ADD INDEX near_event (call_bucket, remote_key_id, prompt_tokens, completion_tokens, call_second),
  ADD INDEX untied_row (call_bucket, untied_row_token, prompt_tokens, completion_tokens, call_second);

ALTER TABLE hookledger_claims DROP INDEX hookledger_claims_untied_row
