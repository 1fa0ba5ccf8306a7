-- What the audit needs beside the books themselves.

-- What the claims that were cleared had come to for a user, with what was given back of them: what is left still adds up.
CREATE TABLE hookledger_cleared_claims (
  user_id         TEXT NOT NULL PRIMARY KEY,
  carried_credits INTEGER NOT NULL,  -- how they changed what is owed below one credit: whole credits ...
  carried_femtos  INTEGER NOT NULL,  -- ... and the part below one, of either sign
  unpaid_credits  INTEGER NOT NULL
) WITHOUT ROWID;

-- Claims that an earlier version cleared were not summed.
INSERT INTO hookledger_meta (name, value) SELECT 'claims_cleared_unsummed', '1'
  WHERE EXISTS (SELECT 1 FROM hookledger_meta WHERE name = 'claims_remembered_from_second');

-- Differences that a person knows of.
CREATE TABLE hookledger_accepted_differences (
  difference_id  TEXT NOT NULL PRIMARY KEY,
  reason         TEXT NOT NULL,
  accepted_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
