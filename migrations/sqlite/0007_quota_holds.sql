-- Seconds in which new-api's quota per unit changed, nobody knows when: calls priced in quota wait until a person has
-- named the second from which the new one counts.
CREATE TABLE hookledger_quota_holds (
  from_second  INTEGER PRIMARY KEY,  -- of the last look that showed the old one
  until_second INTEGER NOT NULL,     -- of the first look that showed another
  quota_before INTEGER NOT NULL,
  quota_after  INTEGER NOT NULL,
  named_second INTEGER               -- absent while nobody has
);
