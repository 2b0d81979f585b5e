//! A message that comes once more, when everything that it says is over.

use cairn_api_spec::Version;
use cairn_replication::{Entry, Header, Member, Replica, Settings, Write};

#[test]
fn a_write_that_is_everywhere_is_not_stored_again() {
    let [primary, me] = [0, 1].map(|node| Member { node, session: 1 });
    let in_sync = vec![primary.clone(), me.clone()];
    let entry = Entry { epoch: 1, primary: Some(0), in_sync, ..Entry::default() };
    let mut replica = Replica::new(me, Settings::default());
    let mut effects = Vec::new();
    assert!(replica.configure(entry, 0, &mut effects));
    let mut append = |version: u64, stable: u64| {
        let header = Header { primary: primary.clone(), session: 1, epoch: 1, stable: Version(stable) };
        replica.append(&header, Write { version: Version(version), data: () }, 0, &mut effects)
    };
    assert_eq!(append(1, 0), Ok(true));
    assert_eq!(append(1, 0), Ok(true), "nobody has said that it is stored");
    assert_eq!(append(2, 1), Ok(true));
    assert_eq!(append(1, 0), Ok(false), "its key may have been deleted since, and the deletion forgotten");
}
