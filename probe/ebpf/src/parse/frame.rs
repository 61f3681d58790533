//! Reads from the frame.

use core::arch::asm;

use aya_ebpf::programs::TcContext;

/// The bytes that follow the IP headers, as offsets in the frame.
#[derive(Clone, Copy)]
pub struct Payload {
    pub start: u32,
    pub end: u32,
}

/// Reads a value at a byte offset; `None` if the frame ends before the value does. Reading from the linear part, where
/// headers nearly always are, needs no helper call.
#[inline(always)]
pub fn load<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let mut at = ctx.data();
    // SAFETY: an addition. It is written out because the compiler might add the size to `offset` first, and the
    // verifier accepts the read only through the register that was compared.
    unsafe { asm!("{at} += {offset}", at = inout(reg) at, offset = in(reg) u64::from(offset)) };
    if at + size_of::<T>() <= ctx.data_end() {
        // SAFETY: inside the packet, as just compared. Aligned where the CPU needs it: the largest field of `T` is a
        // word, and kernels for such CPUs place Ethernet frames so that the IP header is at a multiple of four
        // (`NET_IP_ALIGN`).
        return Some(unsafe { (at as *const T).read() });
    }
    ctx.load(offset as usize).ok()
}
