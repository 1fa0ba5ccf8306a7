-- Seconds in which new-api's quota per unit changed, nobody knows when: calls priced in quota wait until a person has
-- named the second from which the new one counts.
CREATE TABLE IF NOT EXISTS hookledger_quota_holds (
  from_second  BIGINT NOT NULL,  -- of the last look that showed the old one
  until_second BIGINT NOT NULL,  -- of the first look that showed another
  quota_before BIGINT NOT NULL,
  quota_after  BIGINT NOT NULL,
  named_second BIGINT NULL,      -- absent while nobody has
  PRIMARY KEY (from_second)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
