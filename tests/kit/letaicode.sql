-- What an existing LetAiCode keeps in MySQL and we share: the same columns, types, collations, indexes and foreign
-- keys as its ORM makes. A test's database begins with these; the daemon may read and write rows, and nothing else.

CREATE TABLE `users` (
  `id` VARCHAR(191) NOT NULL,
  `email` VARCHAR(191) NOT NULL,
  `name` VARCHAR(191) NULL,
  `role` ENUM('USER', 'ADMIN', 'ROOT') NOT NULL DEFAULT 'USER',
  `status` INTEGER NOT NULL DEFAULT 1,
  `timezone` VARCHAR(191) NOT NULL DEFAULT 'Asia/Shanghai',
  `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  `updatedAt` DATETIME(3) NOT NULL,
  UNIQUE INDEX `users_email_key` (`email`),
  PRIMARY KEY (`id`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE `api_keys` (
  `id` VARCHAR(191) NOT NULL,
  `userId` VARCHAR(191) NOT NULL,
  `label` VARCHAR(191) NOT NULL,
  `remoteKeyId` VARCHAR(191) NULL,
  `maskedValue` VARCHAR(191) NOT NULL,
  `fullValue` VARCHAR(10000) NOT NULL,
  `status` ENUM('ACTIVE', 'DISABLED', 'DELETED') NOT NULL DEFAULT 'ACTIVE',
  `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  `updatedAt` DATETIME(3) NOT NULL,
  `lastUsedAt` DATETIME(3) NULL,
  INDEX `api_keys_userId_idx` (`userId`),
  INDEX `api_keys_remoteKeyId_idx` (`remoteKeyId`),
  PRIMARY KEY (`id`),
  CONSTRAINT `api_keys_userId_fkey` FOREIGN KEY (`userId`) REFERENCES `users` (`id`) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE `usage_records` (
  `id` VARCHAR(191) NOT NULL,
  `apiKeyId` VARCHAR(191) NOT NULL,
  `timestamp` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  `model` VARCHAR(191) NOT NULL,
  `promptTokens` INTEGER NOT NULL,
  `completionTokens` INTEGER NOT NULL,
  `totalTokens` INTEGER NOT NULL,
  `costUsd` DOUBLE NOT NULL DEFAULT 0,
  `creditCost` INTEGER NOT NULL,
  `rawMeta` VARCHAR(10000) NULL,
  INDEX `usage_records_apiKeyId_timestamp_idx` (`apiKeyId`, `timestamp`),
  PRIMARY KEY (`id`),
  CONSTRAINT `usage_records_apiKeyId_fkey` FOREIGN KEY (`apiKeyId`) REFERENCES `api_keys` (`id`) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE `credit_transactions` (
  `id` VARCHAR(191) NOT NULL,
  `userId` VARCHAR(191) NOT NULL,
  `type` ENUM('SUBSCRIPTION', 'REPLENISH', 'DAILY_RESET', 'DEDUCT', 'ADMIN_ADJUST', 'RECHARGE', 'BONUS', 'REFUND') NOT NULL,
  `amount` INTEGER NOT NULL,
  `balance` INTEGER NOT NULL,
  `ref` VARCHAR(191) NULL,
  `desc` VARCHAR(191) NULL,
  `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  INDEX `credit_transactions_userId_createdAt_idx` (`userId`, `createdAt`),
  PRIMARY KEY (`id`),
  CONSTRAINT `credit_transactions_userId_fkey` FOREIGN KEY (`userId`) REFERENCES `users` (`id`) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE `user_credit_balances` (
  `id` VARCHAR(191) NOT NULL,
  `userId` VARCHAR(191) NOT NULL,
  `baseCredits` INTEGER NOT NULL DEFAULT 0,
  `replenishCredits` INTEGER NOT NULL DEFAULT 0,
  `currentCredits` INTEGER NOT NULL DEFAULT 0,
  `lastReplenishAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  `lastDailyResetAt` DATETIME(3) NULL,
  `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  `updatedAt` DATETIME(3) NOT NULL,
  UNIQUE INDEX `user_credit_balances_userId_key` (`userId`),
  PRIMARY KEY (`id`),
  CONSTRAINT `user_credit_balances_userId_fkey` FOREIGN KEY (`userId`) REFERENCES `users` (`id`) ON DELETE CASCADE ON UPDATE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE `options` (
  `key` VARCHAR(191) NOT NULL,
  `value` VARCHAR(10000) NOT NULL,
  `desc` VARCHAR(191) NULL,
  `updatedAt` DATETIME(3) NOT NULL,
  PRIMARY KEY (`key`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE `webhook_logs` (
  `id` VARCHAR(191) NOT NULL,
  `eventId` VARCHAR(191) NOT NULL,
  `payload` LONGTEXT NOT NULL,
  `status` VARCHAR(191) NOT NULL DEFAULT 'processed',
  `errorMsg` VARCHAR(191) NULL,
  `processedAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  `createdAt` DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  UNIQUE INDEX `webhook_logs_eventId_key` (`eventId`),
  INDEX `webhook_logs_eventId_idx` (`eventId`),
  INDEX `webhook_logs_createdAt_idx` (`createdAt`),
  PRIMARY KEY (`id`)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
