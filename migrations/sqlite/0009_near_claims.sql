-- What lies near a row or an event is found by its token and counts, within a bucket of an hour or so: it costs what it
-- finds, however many calls the hour holds. New calls are written to the bucket of their time, which stays in the cache.

ALTER TABLE hookledger_claims ADD COLUMN call_bucket INTEGER GENERATED ALWAYS AS (call_second / 4096) VIRTUAL;
CREATE INDEX hookledger_claims_near_event
  ON hookledger_claims (call_bucket, remote_key_id, prompt_tokens, completion_tokens, call_second)
  WHERE event_id IS NOT NULL;
DROP INDEX hookledger_claims_untied_row;
CREATE INDEX hookledger_claims_untied_row
  ON hookledger_claims (call_bucket, untied_row_token, prompt_tokens, completion_tokens, call_second)
  WHERE untied_row_token IS NOT NULL;
