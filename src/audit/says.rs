//! What to do about each kind of difference, in a sentence. docs/OPERATIONS.md tells more.

use super::report::DifferenceKind;

pub fn what_to_do(kind: DifferenceKind) -> &'static str {
    use DifferenceKind as Kind;
    match kind {
        Kind::RecordMissing => {
            "Somebody deleted the usage record by itself. The money is right; put the record back from a backup, or accept this."
        }
        Kind::RecordDiffers => {
            "Somebody changed the usage record after it was written: find out who, and correct it by hand, or accept this."
        }
        Kind::ClaimMissing => {
            "The memory of this charge is gone, so that its event or row could be charged again. Compare with a backup before anything else."
        }
        Kind::ClaimDiffers => "Somebody changed the charge after it was booked. Compare with a backup.",
        Kind::EventChargedTwice | Kind::RowChargedTwice => {
            "Look at both with `hookledger charges show`, and give the second one back with `hookledger charges refund`."
        }
        Kind::RowUnknown => {
            "What was read of the log was deleted here: the row could be charged again. Compare with a backup before anything else."
        }
        Kind::TransactionMissing => {
            "Somebody deleted the transaction. The balance is right if nobody touched it; put the transaction back from a backup, or accept this."
        }
        Kind::TransactionDoubled => {
            "Delete the second one by hand if the balance never moved by it; else give it back with `hookledger credits adjust`."
        }
        Kind::TransactionDiffers => {
            "Somebody changed a transaction: compare with a backup, and with `hookledger charges show`."
        }
        Kind::TransactionUnexplained => {
            "Nobody knows what it was for: ask who wrote it, and correct the balance with `hookledger credits adjust`."
        }
        Kind::RefundDiffers => "Somebody changed the refund or its transaction: look at `hookledger charges show`.",
        Kind::RemainderDiffers | Kind::UnpaidDiffers => {
            "Our own account of the user was changed, or a charge of his. Compare with a backup; this needs a look at the code if nobody did it."
        }
        Kind::BalanceDiffers => "Settle the differences of this user's own charges first; this one may be theirs.",
        Kind::BalanceOverwritten => {
            "Another program read the balance, computed, and wrote it back over what was booked in between: correct it with `hookledger credits adjust`, and have that program add instead."
        }
        Kind::BalanceChanged => {
            "Another program or a person changed the balance without a transaction: correct it with `hookledger credits adjust`, or accept it."
        }
        Kind::CallMissing => {
            "Read that time again: `hookledger sync --since T --until T`. If it stays, look for the token with `hookledger key unmatched`, and at `hookledger disputes list`."
        }
        Kind::RefundMissing => "Read that time again: `hookledger sync --since T --until T`.",
        Kind::RowDeleted => {
            "Somebody deleted rows of new-api's log, or put back an older one. The charge stands; give it back if the call never was."
        }
        Kind::CallWithoutRow => {
            "The sender told of a call that new-api did not log. Test events are such; else look whether the log is written, and who sends."
        }
    }
}
