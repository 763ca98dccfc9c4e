//! A description as text: in JSON, and in the words of errors.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Of the description: 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Version;

const VERSION: u32 = 1;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        match u32::deserialize(deserializer)? {
            VERSION => Ok(Version),
            other => Err(D::Error::custom(format!(
                "version {other} of a sandbox's description is not known; a later Blink has written it"
            ))),
        }
    }
}

/// A time as a number of seconds.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, De: Deserializer<'de>>(
        deserializer: De,
    ) -> Result<Option<Duration>, De::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        let time = seconds.map(Duration::try_from_secs_f64).transpose();
        time.map_err(|error| De::Error::custom(format!("it is no number of seconds: {error}")))
    }
}

/// Environment variables as the fields of an object.
pub(super) mod variables {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        variables: &[(OsString, OsString)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = |text: &OsString| {
            let text = text.to_str().map(str::to_owned);
            text.ok_or_else(|| serde::ser::Error::custom("an environment variable is no text"))
        };
        let variables = variables.iter();
        let variables: BTreeMap<_, _> = variables
            .map(|(name, value)| Ok((text(name)?, text(value)?)))
            .collect::<Result<_, _>>()?;
        serializer.collect_map(variables)
    }

    pub(crate) fn deserialize<'de, De: Deserializer<'de>>(
        deserializer: De,
    ) -> Result<Vec<(OsString, OsString)>, De::Error> {
        let variables = BTreeMap::<String, String>::deserialize(deserializer)?;
        let variables = variables.into_iter();
        Ok(variables
            .map(|(name, value)| (name.into(), value.into()))
            .collect())
    }
}

/// A field's value in an error.
pub(super) fn in_words(field: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "not set".to_owned(),
        Some(Value::Number(seconds)) if field == "idle_stop" => {
            format!("{} s", seconds.as_f64().unwrap_or_default())
        }
        Some(Value::String(text)) if field == "network" => text.clone(),
        Some(value) => value.to_string(),
    }
}
