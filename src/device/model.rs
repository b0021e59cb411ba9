//! Objects of EC2's model, declared member by member.

/// Declares objects of EC2's model: the struct, its lenient reading, the walk that names what could not be read, and
/// its rendering as it is, in snake case. Members are declared in the order of their names; one that is marked `(IN_FULL)`
/// is read in full only.
macro_rules! objects {
    (@IN_FULL $object:ident.$member:ident) => {
        (stringify!($member), &$object.$member as &dyn $crate::device::Detail)
    };
    ($($(#[$doc:meta])* $name:ident<$life:lifetime> {
        $($member:ident $(($depth:ident))?: $kind:ty = $wire:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[allow(missing_docs)] // The members are EC2's; its API reference describes them.
        pub struct $name<$life> {
            record: std::marker::PhantomData<&$life [u8]>,
            $(pub $member: $kind,)*
        }

        impl<'de: $life, $life> $crate::device::lenient::Lenient<'de> for $name<$life> {
            fn from_map<D: $crate::device::lenient::Depth, A: serde::de::MapAccess<'de>>(
                mut map: A,
            ) -> Result<Member<Self>, A::Error> {
                // By their lengths first: names alone are compared with one after the other.
                #[allow(non_upper_case_globals)]
                mod length {
                    $(pub const $member: usize = $wire.len();)*
                }
                let mut object = Self::default();
                while let Some(name) = map.next_key_seed($crate::device::lenient::Name)? {
                    match (name.len(), &*name) {
                        $((length::$member, $wire) $(if D::$depth)? => {
                            object.$member = map.next_value_seed($crate::device::lenient::Read::<D, _>::default())?;
                        })*
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                    }
                }
                Ok(Member::Known(object))
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
                $crate::device::detail::named([$((stringify!($member), &self.$member as &dyn $crate::device::Detail),)*])
            }

            /// Those of them that are read in full only.
            pub fn rest(&self) -> impl Iterator<Item = $crate::device::Named<'_>> {
                $crate::device::detail::named([$($($crate::device::model::objects!(@$depth self.$member),)?)*])
            }
        }

        impl $crate::device::detail::Detail for $name<'_> {
            fn write(&self, json: &mut Vec<u8>) -> bool {
                $crate::device::detail::write_object(json, self.members())
            }
        }
    )*};
}

pub(super) use objects;
