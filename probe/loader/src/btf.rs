//! Offsets of fields in the kernel's structs, from its type information (BTF, `Documentation/bpf/btf.rst`). Conntrack may
//! be a module, whose types are a continuation of the kernel's own.
//!
//! It reads the types that [`Conntrack`] needs, and nothing else of the format.

use std::{fs, io, path::Path};

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MODULE: &str = "/sys/kernel/btf/nf_conntrack";
const MAGIC: u16 = 0xeb9f;
/// Types inside types, and the names of types that lead to others.
const DEEPEST: u32 = 16;

/// Where a program finds the conntrack entry of a packet, and the tuples in it. The default: nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conntrack {
    pub(crate) in_packet: u32,
    pub(crate) tuples: u32,
}

/// Fields at offsets that the programs take for granted.
const EXPECTED: [(&[&str], u32); 8] = [
    (&["nf_conntrack_tuple", "src", "u3"], 0),
    (&["nf_conntrack_tuple", "src", "u"], 16),
    (&["nf_conntrack_tuple", "src", "l3num"], 18),
    (&["nf_conntrack_tuple", "dst", "u3"], 20),
    (&["nf_conntrack_tuple", "dst", "u"], 36),
    (&["nf_conntrack_tuple", "dst", "protonum"], 38),
    (&["nf_conntrack_tuple", "dst", "dir"], 39),
    (&["nf_conntrack_tuple_hash", "tuple"], 16),
];
/// Of `struct nf_conntrack_tuple_hash`, two of which are in an entry.
const TUPLE_HASH_SIZE: u32 = 56;

impl Conntrack {
    /// # Errors
    /// Why conntrack cannot be read, for people.
    pub(crate) fn find() -> Result<Self, String> {
        let types = Types::read(Path::new(KERNEL), Path::new(MODULE))?;
        Self::in_types(&types)
    }

    fn in_types(types: &Types) -> Result<Self, String> {
        let offset = |path: &[&str]| types.offset(path).ok_or_else(|| format!("the kernel has no {}", path.join(".")));
        for (path, expected) in EXPECTED {
            let found = offset(path)?;
            if found != expected {
                return Err(format!("{} is at {found} in this kernel, expected {expected}", path.join(".")));
            }
        }
        match types.size("nf_conntrack_tuple_hash") {
            Some(TUPLE_HASH_SIZE) => {}
            found => return Err(format!("nf_conntrack_tuple_hash has {found:?} bytes, expected {TUPLE_HASH_SIZE}")),
        }
        let tuple = offset(&["nf_conntrack_tuple_hash", "tuple"])?;
        Ok(Self { in_packet: offset(&["sk_buff", "_nfct"])?, tuples: offset(&["nf_conn", "tuplehash"])? + tuple })
    }
}

/// The structs and unions of the kernel and one module.
struct Types {
    sections: Vec<Section>,
}

/// One file: its types in order, and their names.
struct Section {
    types: Vec<Type>,
    strings: Vec<u8>,
    /// Id of its first type.
    first: u32,
    /// Offset of its first string.
    first_string: u32,
}

#[derive(Clone, Debug)]
enum Type {
    /// A struct or a union.
    Composite {
        name: u32,
        size: u32,
        members: Vec<Member>,
    },
    /// Another name of a type, or a qualifier.
    Alias {
        target: u32,
    },
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    name: u32,
    kind: u32,
    /// In bits, from the start of the struct.
    offset: u32,
}

impl Types {
    fn read(kernel: &Path, module: &Path) -> Result<Self, String> {
        let read = |path: &Path| fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
        // Type 0 is void, and has no entry.
        let kernel = Section::parse(&read(kernel)?, 1, 0).ok_or("the kernel's type information is damaged")?;
        let mut sections = vec![kernel];
        match fs::read(module) {
            Ok(bytes) => {
                let (first, first_string) = sections[0].end().ok_or("the kernel has too many types")?;
                let section = Section::parse(&bytes, first, first_string);
                sections.push(section.ok_or("the type information of nf_conntrack is damaged")?);
            }
            // Built in, or not loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{} cannot be read: {error}", module.display())),
        }
        Ok(Self { sections })
    }

    /// The offset in bytes of a field: a struct, then the names of fields, one inside the other.
    fn offset(&self, path: &[&str]) -> Option<u32> {
        let (name, fields) = path.split_first()?;
        self.named(name).find_map(|composite| {
            let mut kind = composite.clone();
            let mut bits = 0_u32;
            for field in fields {
                let (offset, of) = self.member(&kind, field, DEEPEST)?;
                bits = bits.checked_add(offset)?;
                kind = self.resolve(of).cloned().unwrap_or(Type::Other);
            }
            bits.is_multiple_of(8).then_some(bits / 8)
        })
    }

    fn size(&self, name: &str) -> Option<u32> {
        self.named(name).find_map(|composite| match composite {
            Type::Composite { size, .. } => Some(*size),
            _ => None,
        })
    }

    fn named<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a Type> {
        self.sections.iter().flat_map(|section| &section.types).filter(move |kind| match kind {
            Type::Composite { name, .. } => self.string(*name) == Some(wanted.as_bytes()),
            _ => false,
        })
    }

    /// Offset in bits and type of a member, also of one in a member without a name.
    fn member(&self, composite: &Type, wanted: &str, depth: u32) -> Option<(u32, u32)> {
        let Type::Composite { members, .. } = composite else { return None };
        let depth = depth.checked_sub(1)?;
        members.iter().find_map(|member| {
            if self.string(member.name) == Some(wanted.as_bytes()) {
                return Some((member.offset, member.kind));
            }
            if member.name != 0 {
                return None;
            }
            let (offset, kind) = self.member(self.resolve(member.kind)?, wanted, depth)?;
            Some((member.offset.checked_add(offset)?, kind))
        })
    }

    /// The type of an id, behind its other names.
    fn resolve(&self, mut id: u32) -> Option<&Type> {
        for _ in 0..DEEPEST {
            let section = self.sections.iter().rev().find(|section| id >= section.first)?;
            match section.types.get(usize::try_from(id - section.first).ok()?)? {
                Type::Alias { target } => id = *target,
                found => return Some(found),
            }
        }
        None
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let section = self.sections.iter().rev().find(|section| offset >= section.first_string)?;
        let from = section.strings.get(usize::try_from(offset - section.first_string).ok()?..)?;
        from.split(|byte| *byte == 0).next()
    }
}

impl Section {
    /// `None` where the bytes are not of the format.
    fn parse(bytes: &[u8], first: u32, first_string: u32) -> Option<Self> {
        let mut header = Reader { bytes };
        if header.half()? != MAGIC {
            return None;
        }
        let _version_and_flags = header.half()?;
        let length = usize::try_from(header.word()?).ok()?;
        let mut part = || {
            let (offset, size) = (usize::try_from(header.word()?).ok()?, usize::try_from(header.word()?).ok()?);
            let start = length.checked_add(offset)?;
            bytes.get(start..start.checked_add(size)?)
        };
        let (types, strings) = (part()?, part()?.to_vec());
        let mut reader = Reader { bytes: types };
        let mut types = Vec::new();
        while !reader.bytes.is_empty() {
            types.push(reader.kind()?);
        }
        Some(Self { types, strings, first, first_string })
    }

    /// The ids and string offsets that follow its own.
    fn end(&self) -> Option<(u32, u32)> {
        let types = self.first.checked_add(u32::try_from(self.types.len()).ok()?)?;
        Some((types, self.first_string.checked_add(u32::try_from(self.strings.len()).ok()?)?))
    }
}

/// In the byte order of this machine, which is the kernel's.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn half(&mut self) -> Option<u16> {
        let (half, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u16::from_ne_bytes(*half))
    }

    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u32::from_ne_bytes(*word))
    }

    fn skip(&mut self, words: u32) -> Option<()> {
        let bytes = usize::try_from(words).ok()?.checked_mul(size_of::<u32>())?;
        self.bytes = self.bytes.get(bytes..)?;
        Some(())
    }

    /// One type with the data after it.
    fn kind(&mut self) -> Option<Type> {
        let (name, info, size_or_target) = (self.word()?, self.word()?, self.word()?);
        let (count, kind, has_bitfields) = (info & 0xffff, (info >> 24) & 0x1f, info >> 31 != 0);
        match kind {
            // Struct, union.
            4 | 5 => {
                let mut members = Vec::new();
                for _ in 0..count {
                    let (name, kind, offset) = (self.word()?, self.word()?, self.word()?);
                    let offset = if has_bitfields { offset & 0x00ff_ffff } else { offset };
                    members.push(Member { name, kind, offset });
                }
                Some(Type::Composite { name, size: size_or_target, members })
            }
            // Typedef, volatile, const, restrict, type tag.
            8..=11 | 18 => Some(Type::Alias { target: size_or_target }),
            // Integer, variable, declaration tag.
            1 | 14 | 17 => self.skip(1).map(|()| Type::Other),
            // Array.
            3 => self.skip(3).map(|()| Type::Other),
            // Enum, prototype of a function.
            6 | 13 => self.skip(count * 2).map(|()| Type::Other),
            // Section of data, enum of 64 bits.
            15 | 19 => self.skip(count * 3).map(|()| Type::Other),
            // Pointer, forward declaration, function, floating point.
            2 | 7 | 12 | 16 => Some(Type::Other),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
