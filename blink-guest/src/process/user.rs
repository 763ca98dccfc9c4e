//! Who a process runs as: the sandbox's own `/etc/passwd` and `/etc/group`, read without libc, which could not load
//! its name services in a static program.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blink_wire::{ErrorBody, ErrorKind};

/// These files belong to the sandbox, which may have made them as large as it likes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// Linux's own limit on the groups of one process is 65536; no real user has more than a few dozen.
const GROUPS_LIMIT: usize = 256;

/// A user as the kernel and the shell know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Looks up `name`, `id`, `name:group` or `id:id`; root where nothing is asked.
pub(crate) fn find(spec: Option<&str>) -> Result<User, ErrorBody> {
    let [passwd, group] = FILES.map(read);
    find_in(spec, &passwd, &group)
}

const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// The sandbox's users, of whom the last that was looked for is remembered for as long as the files stay as they are.
#[derive(Default)]
pub(crate) struct Users {
    last: Option<(Option<String>, [Version; 2], User)>,
}

impl Users {
    /// As [`find`].
    pub(crate) fn find(&mut self, spec: Option<&str>) -> Result<User, ErrorBody> {
        let versions = FILES.map(Version::of);
        if let Some((last, seen, user)) = &self.last
            && last.as_deref() == spec
            && *seen == versions
        {
            return Ok(user.clone());
        }
        let user = find(spec)?;
        self.last = versions
            .iter()
            .all(Version::is_settled)
            .then(|| (spec.map(str::to_owned), versions, user.clone()));
        Ok(user)
    }
}

/// What tells one content of a file from another.
#[derive(PartialEq, Eq)]
struct Version(Option<(u64, u64, i64, i64)>);

impl Version {
    fn of(path: &str) -> Version {
        let found = std::fs::metadata(path).ok();
        Version(found.map(|found| (found.dev(), found.ino(), found.ctime(), found.ctime_nsec())))
    }

    /// Whether a later change gets another time, however coarse the file system's clock is.
    fn is_settled(&self) -> bool {
        const COARSE: Duration = Duration::from_secs(2);
        let Some((_, _, seconds, _)) = self.0 else {
            return true;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let changed = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        now.is_ok_and(|now| now > changed + COARSE)
    }
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    // A pipe in its place must not hold the agent up. A part of the file is still a list of users; a missing one is an
    // empty list.
    if let Ok(file) = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        && let Ok(found) = file.metadata()
        && found.is_file()
    {
        bytes.reserve(usize::try_from(found.len().min(FILE_LIMIT_BYTES)).unwrap_or_default() + 64);
        let _ = file.take(FILE_LIMIT_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find_in(spec: Option<&str>, passwd: &str, group: &str) -> Result<User, ErrorBody> {
    let (user, wanted_group) = match spec.unwrap_or("0").split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec.unwrap_or("0"), None),
    };
    let by_id = user.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 7)
        .find(|fields| fields[0] == user || (by_id.is_some() && fields[2].parse().ok() == by_id));
    let mut found = match (entry, by_id) {
        (Some(fields), _) => User {
            uid: number(fields[2], user)?,
            gid: number(fields[3], user)?,
            groups: Vec::new(),
            name: fields[0].to_owned(),
            home: fields[5].to_owned(),
            shell: fields[6].to_owned(),
        },
        (None, Some(uid)) => User {
            uid,
            gid: uid,
            groups: Vec::new(),
            name: uid.to_string(),
            home: if uid == 0 { "/root".into() } else { "/".into() },
            shell: "/bin/sh".into(),
        },
        (None, None) => return Err(missing("user", user)),
    };
    let groups = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 4);
    let mut others = Vec::new();
    let mut named = None;
    for fields in groups {
        let Ok(gid) = fields[2].parse::<u32>() else {
            continue;
        };
        if wanted_group == Some(fields[0]) {
            named = Some(gid);
        }
        if fields[3].split(',').any(|member| member == found.name) && others.len() < GROUPS_LIMIT {
            others.push(gid);
        }
    }
    if let Some(wanted) = wanted_group {
        found.gid = named
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| missing("group", wanted))?;
    }
    others.retain(|gid| *gid != found.gid);
    found.groups = others;
    Ok(found)
}

fn number(field: &str, user: &str) -> Result<u32, ErrorBody> {
    field.parse().map_err(|_| {
        ErrorBody::new(
            ErrorKind::InvalidArgument,
            format!("the sandbox's /etc/passwd has no valid ids for user {user:?}"),
        )
    })
}

fn missing(what: &str, name: &str) -> ErrorBody {
    let message =
        format!("there is no {what} {name:?} in the sandbox; name one of its own, or use a number");
    ErrorBody::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\nanna:x:1000:100::/home/anna:/bin/zsh\nbad:x:nine:1::/:/\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:anna\nvideo:x:44:bob,anna\n";

    fn look(spec: Option<&str>) -> Result<User, ErrorBody> {
        find_in(spec, PASSWD, GROUP)
    }

    #[test]
    fn users_are_found_by_name_and_number_with_their_groups() {
        let anna = look(Some("anna")).unwrap();
        assert_eq!(
            (
                anna.uid,
                anna.gid,
                anna.groups.as_slice(),
                anna.home.as_str()
            ),
            (1000, 100, &[44][..], "/home/anna")
        );
        assert_eq!(look(Some("1000")).unwrap(), anna);
        assert_eq!(look(None).unwrap().name, "root");
        assert_eq!(look(Some("anna:video")).unwrap().gid, 44);
        assert_eq!(look(Some("anna:7")).unwrap().gid, 7);
    }

    #[test]
    fn a_number_needs_no_entry() {
        let user = look(Some("4711")).unwrap();
        assert_eq!((user.uid, user.gid, user.groups.len()), (4711, 4711, 0));
    }

    #[test]
    fn missing_names_are_named() {
        for (spec, name) in [
            ("otto", "\"otto\""),
            ("anna:nogroup", "\"nogroup\""),
            ("", "\"\""),
            ("-1", "\"-1\""),
        ] {
            let error = look(Some(spec)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFound);
            assert!(error.message.contains(name), "{}", error.message);
        }
        assert_eq!(
            look(Some("bad")).unwrap_err().kind,
            ErrorKind::InvalidArgument
        );
    }
}
