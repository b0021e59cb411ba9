//! Objects of EC2's model, declared member by member.

/// Declares objects of EC2's model: the struct, its lenient reading, the walk that names what could not be read, and
/// its rendering as it is, in snake case. Members are declared in the order of their names.
macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident<$life:lifetime> { $($member:ident: $kind:ty = $wire:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, bound(deserialize = "'de: 'a"))]
        #[allow(missing_docs)] // The members are EC2's; its API reference describes them.
        pub struct $name<$life> {
            #[serde(skip)]
            record: std::marker::PhantomData<&$life [u8]>,
            $(#[serde(rename = $wire)] pub $member: $kind,)*
        }

        impl<'de: $life, $life> $crate::device::lenient::Lenient<'de> for $name<$life> {
            fn from_map<A: serde::de::MapAccess<'de>>(map: A) -> Result<Member<Self>, A::Error> {
                let object = serde::de::value::MapAccessDeserializer::new(map);
                serde::Deserialize::deserialize(object).map(Member::Known)
            }
        }

        impl $crate::device::lenient::Inspect for $name<'_> {
            fn unreadable(&self, _path: $crate::device::Path<'_>, _report: &mut dyn FnMut($crate::device::Path<'_>)) {
                $(self.$member.unreadable($crate::device::Path::Member(&_path, $wire), _report);)*
            }
        }

        impl<$life> $name<$life> {
            /// Its members in snake case, in the order of their names.
            pub fn members(&self) -> impl Iterator<Item = $crate::device::Named<'_>> {
                [$((stringify!($member), &self.$member as &dyn $crate::device::Detail),)*].into_iter()
            }
        }

        impl $crate::device::lenient::Detail for $name<'_> {
            fn write(&self, json: &mut Vec<u8>) -> bool {
                $crate::device::lenient::write_object(json, self.members())
            }
        }
    )*};
}

pub(super) use objects;
