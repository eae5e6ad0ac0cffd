//! `/proc/cpuinfo`: the processor as it names itself, and as many as the sandbox is told of.

use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use crate::Kernel;

/// What CPUID tells; asked once, since under a hypervisor each question costs microseconds.
struct Processor {
    vendor: String,
    model_name: String,
    family: u32,
    model: u32,
    stepping: u32,
    physical_bits: u32,
    virtual_bits: u32,
    cache_line: u32,
    flags: String,
}

/// Register of a leaf, for the table of flags.
#[derive(Clone, Copy)]
enum Word {
    /// Leaf 1, EDX.
    FirstEdx,
    /// Leaf 1, ECX.
    FirstEcx,
    /// Leaf 7, EBX.
    SeventhEbx,
    /// Leaf 7, ECX.
    SeventhEcx,
    /// Leaf 7, EDX.
    SeventhEdx,
    /// Leaf 0xd.1, EAX.
    SaveEax,
    /// Leaf 0x8000_0001, EDX.
    ExtendedEdx,
    /// Leaf 0x8000_0001, ECX.
    ExtendedEcx,
}

/// Linux's names of the bits, in its order.
const FLAGS: &[(Word, u32, &str)] = {
    use Word::{ExtendedEcx, ExtendedEdx, FirstEcx, FirstEdx, SaveEax, SeventhEbx, SeventhEcx, SeventhEdx};
    &[
        (FirstEdx, 0, "fpu"),
        (FirstEdx, 1, "vme"),
        (FirstEdx, 2, "de"),
        (FirstEdx, 3, "pse"),
        (FirstEdx, 4, "tsc"),
        (FirstEdx, 5, "msr"),
        (FirstEdx, 6, "pae"),
        (FirstEdx, 7, "mce"),
        (FirstEdx, 8, "cx8"),
        (FirstEdx, 9, "apic"),
        (FirstEdx, 11, "sep"),
        (FirstEdx, 12, "mtrr"),
        (FirstEdx, 13, "pge"),
        (FirstEdx, 14, "mca"),
        (FirstEdx, 15, "cmov"),
        (FirstEdx, 16, "pat"),
        (FirstEdx, 17, "pse36"),
        (FirstEdx, 19, "clflush"),
        (FirstEdx, 23, "mmx"),
        (FirstEdx, 24, "fxsr"),
        (FirstEdx, 25, "sse"),
        (FirstEdx, 26, "sse2"),
        (FirstEdx, 28, "ht"),
        (ExtendedEdx, 11, "syscall"),
        (ExtendedEdx, 20, "nx"),
        (ExtendedEdx, 22, "mmxext"),
        (ExtendedEdx, 25, "fxsr_opt"),
        (ExtendedEdx, 26, "pdpe1gb"),
        (ExtendedEdx, 27, "rdtscp"),
        (ExtendedEdx, 29, "lm"),
        (FirstEcx, 0, "pni"),
        (FirstEcx, 1, "pclmulqdq"),
        (FirstEcx, 9, "ssse3"),
        (FirstEcx, 12, "fma"),
        (FirstEcx, 13, "cx16"),
        (FirstEcx, 17, "pcid"),
        (FirstEcx, 19, "sse4_1"),
        (FirstEcx, 20, "sse4_2"),
        (FirstEcx, 21, "x2apic"),
        (FirstEcx, 22, "movbe"),
        (FirstEcx, 23, "popcnt"),
        (FirstEcx, 25, "aes"),
        (FirstEcx, 26, "xsave"),
        (FirstEcx, 28, "avx"),
        (FirstEcx, 29, "f16c"),
        (FirstEcx, 30, "rdrand"),
        (FirstEcx, 31, "hypervisor"),
        (ExtendedEcx, 0, "lahf_lm"),
        (ExtendedEcx, 4, "cr8_legacy"),
        (ExtendedEcx, 5, "abm"),
        (ExtendedEcx, 6, "sse4a"),
        (ExtendedEcx, 7, "misalignsse"),
        (ExtendedEcx, 8, "3dnowprefetch"),
        (SeventhEbx, 0, "fsgsbase"),
        (SeventhEbx, 3, "bmi1"),
        (SeventhEbx, 5, "avx2"),
        (SeventhEbx, 7, "smep"),
        (SeventhEbx, 8, "bmi2"),
        (SeventhEbx, 9, "erms"),
        (SeventhEbx, 10, "invpcid"),
        (SeventhEbx, 16, "avx512f"),
        (SeventhEbx, 17, "avx512dq"),
        (SeventhEbx, 18, "rdseed"),
        (SeventhEbx, 19, "adx"),
        (SeventhEbx, 20, "smap"),
        (SeventhEbx, 21, "avx512ifma"),
        (SeventhEbx, 23, "clflushopt"),
        (SeventhEbx, 24, "clwb"),
        (SeventhEbx, 28, "avx512cd"),
        (SeventhEbx, 29, "sha_ni"),
        (SeventhEbx, 30, "avx512bw"),
        (SeventhEbx, 31, "avx512vl"),
        (SaveEax, 0, "xsaveopt"),
        (SaveEax, 1, "xsavec"),
        (SaveEax, 2, "xgetbv1"),
        (SaveEax, 3, "xsaves"),
        (SeventhEcx, 1, "avx512vbmi"),
        (SeventhEcx, 2, "umip"),
        (SeventhEcx, 6, "avx512_vbmi2"),
        (SeventhEcx, 8, "gfni"),
        (SeventhEcx, 9, "vaes"),
        (SeventhEcx, 10, "vpclmulqdq"),
        (SeventhEcx, 11, "avx512_vnni"),
        (SeventhEcx, 12, "avx512_bitalg"),
        (SeventhEcx, 14, "avx512_vpopcntdq"),
        (SeventhEcx, 22, "rdpid"),
        (SeventhEdx, 4, "fsrm"),
        (SeventhEdx, 10, "md_clear"),
        (SeventhEdx, 14, "serialize"),
        (SeventhEdx, 28, "flush_l1d"),
        (SeventhEdx, 29, "arch_capabilities"),
    ]
};

fn leaf(number: u32) -> CpuidResult {
    // Leaves past the largest answer with the largest one's content; callers ask for those that every x86-64 processor of the last decade has.
    __cpuid(number)
}

fn characters(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers.iter().flat_map(|register| register.to_le_bytes()).collect();
    String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ']).to_owned()
}

fn flags() -> String {
    let (first, seventh, save) = (leaf(1), __cpuid_count(7, 0), __cpuid_count(0xd, 1));
    let extended = leaf(0x8000_0001);
    let word = |word: Word| match word {
        Word::FirstEdx => first.edx,
        Word::FirstEcx => first.ecx,
        Word::SeventhEbx => seventh.ebx,
        Word::SeventhEcx => seventh.ecx,
        Word::SeventhEdx => seventh.edx,
        Word::SaveEax => save.eax,
        Word::ExtendedEdx => extended.edx,
        Word::ExtendedEcx => extended.ecx,
    };
    let present: Vec<&str> = FLAGS.iter().filter(|flag| word(flag.0) & 1 << flag.1 != 0).map(|flag| flag.2).collect();
    present.join(" ")
}

fn processor() -> &'static Processor {
    static PROCESSOR: OnceLock<Processor> = OnceLock::new();
    PROCESSOR.get_or_init(|| {
        let (zeroth, first, sizes) = (leaf(0), leaf(1), leaf(0x8000_0008));
        let brand: Vec<u32> = (0x8000_0002..=0x8000_0004).map(leaf).flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]).collect();
        let base_family = first.eax >> 8 & 0xf;
        let base_model = first.eax >> 4 & 0xf;
        let family = if base_family == 0xf { base_family + (first.eax >> 20 & 0xff) } else { base_family };
        let model = if base_family >= 6 { base_model | (first.eax >> 16 & 0xf) << 4 } else { base_model };
        Processor {
            vendor: characters(&[zeroth.ebx, zeroth.edx, zeroth.ecx]),
            model_name: characters(&brand),
            family,
            model,
            stepping: first.eax & 0xf,
            physical_bits: sizes.eax & 0xff,
            virtual_bits: sizes.eax >> 8 & 0xff,
            cache_line: (first.ebx >> 8 & 0xff) * 8,
            flags: flags(),
        }
    })
}

/// `/proc/cpuinfo`.
pub fn cpuinfo(kernel: &Arc<Kernel>) -> String {
    let processor = processor();
    let count = kernel.cpu_count();
    let mut text = String::new();
    for index in 0..count {
        let Processor { vendor, model_name, family, model, stepping, physical_bits, virtual_bits, cache_line, flags } = processor;
        let _ = write!(text, "processor\t: {index}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n");
        let _ = write!(text, "model name\t: {model_name}\nstepping\t: {stepping}\nphysical id\t: 0\nsiblings\t: {count}\n");
        let _ = write!(text, "core id\t\t: {index}\ncpu cores\t: {count}\napicid\t\t: {index}\ninitial apicid\t: {index}\n");
        let _ = write!(text, "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {flags}\nbugs\t\t:\n");
        let _ = write!(text, "bogomips\t: 4000.00\nclflush size\t: {cache_line}\ncache_alignment\t: {cache_line}\n");
        let _ = write!(text, "address sizes\t: {physical_bits} bits physical, {virtual_bits} bits virtual\npower management:\n\n");
    }
    text
}
