use super::*;

/// Names and types of a made-up section.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    first_string: u32,
}

impl Builder {
    /// The kernel's own: string 0 is empty.
    fn kernel() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    /// Offset of a new string.
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let offset = self.first_string + u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        offset
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    }

    /// A struct with (name, type, offset in bytes).
    fn composite(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        let name = self.string(name);
        self.words(&[name, 4 << 24 | u32::try_from(members.len()).unwrap(), size]);
        for (name, kind, offset) in members {
            let name = self.string(name);
            self.words(&[name, *kind, offset * 8]);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (u32::try_from(self.types.len()).unwrap(), u32::try_from(self.strings.len()).unwrap());
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend([24, 0, types, types, strings].iter().flat_map(|word: &u32| word.to_ne_bytes()));
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

#[test]
fn fields_are_found_behind_other_names_and_in_members_without_a_name() {
    let mut kernel = Builder::kernel();
    let number = kernel.string("int");
    kernel.words(&[number, 1 << 24, 4, 32]); // 1
    kernel.composite("", 16, &[("inner", 1, 8)]); // 2
    let alias = kernel.string("alias");
    kernel.words(&[alias, 8 << 24, 2]); // 3
    kernel.composite("outer", 64, &[("first", 1, 0), ("", 3, 16), ("nested", 3, 32)]); // 4
    let types = Types { sections: vec![Section::parse(&kernel.bytes(), 1, 0).unwrap()] };
    assert_eq!(types.offset(&["outer", "first"]), Some(0));
    assert_eq!(types.offset(&["outer", "inner"]), Some(24));
    assert_eq!(types.offset(&["outer", "nested", "inner"]), Some(40));
    assert_eq!(types.size("outer"), Some(64));
    assert_eq!(types.offset(&["outer", "absent"]), None);
    assert_eq!(types.offset(&["absent", "first"]), None);
}

#[test]
fn types_of_a_module_continue_the_kernels() {
    let mut kernel = Builder::kernel();
    kernel.composite("sk_buff", 232, &[("_nfct", 0, 104)]); // 1
    let kernel = Section::parse(&kernel.bytes(), 1, 0).unwrap();
    let (first, first_string) = kernel.end().unwrap();
    let mut module = Builder { first_string, ..Builder::default() };
    module.composite("nf_conn", 256, &[("ours", 0, 8), ("packet", 1, 16)]); // 2
    let module = Section::parse(&module.bytes(), first, first_string).unwrap();
    let types = Types { sections: vec![kernel, module] };
    assert_eq!(types.offset(&["nf_conn", "packet", "_nfct"]), Some(120));
    assert_eq!(types.offset(&["nf_conn", "ours"]), Some(8));
}

#[test]
fn damaged_information_is_refused_at_every_length() {
    let mut kernel = Builder::kernel();
    kernel.composite("sk_buff", 232, &[("_nfct", 1, 104)]);
    // An alias of itself.
    kernel.words(&[0, 8 << 24, 2]);
    let bytes = kernel.bytes();
    for length in 0..bytes.len() {
        assert!(Section::parse(&bytes[..length], 1, 0).is_none(), "{length} bytes");
    }
    let types = Types { sections: vec![Section::parse(&bytes, 1, 0).unwrap()] };
    assert!(types.resolve(2).is_none(), "a circle");
    assert_eq!(types.offset(&["sk_buff", "_nfct", "deeper"]), None);
}

#[test]
fn kernel_without_conntrack_is_told() {
    let types = Types { sections: vec![Section::parse(&Builder::kernel().bytes(), 1, 0).unwrap()] };
    assert!(Conntrack::in_types(&types).unwrap_err().contains("nf_conntrack_tuple"));
}

#[test]
fn layout_that_the_programs_do_not_know_is_refused() {
    let mut kernel = Builder::kernel();
    kernel.composite("nf_conntrack_man", 20, &[("u3", 0, 4)]);
    kernel.composite("nf_conntrack_tuple", 40, &[("src", 1, 0)]);
    let types = Types { sections: vec![Section::parse(&kernel.bytes(), 1, 0).unwrap()] };
    let error = Conntrack::in_types(&types).unwrap_err();
    assert_eq!(error, "nf_conntrack_tuple.src.u3 is at 4 in this kernel, expected 0");
}
