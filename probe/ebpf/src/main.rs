//! The BPF programs of the probe, on the host side of a pod's veth. This file only wires: [`judge`] says what happens to
//! a packet and in which order. The programs look tables up and know nothing of policies; every layout is `netverdict-abi`'s.

#![no_std]
#![no_main]
// A few instructions that the compiler does not offer for this target, or must not reorder: see `atomic`, `subprogram`.
#![feature(asm_experimental_arch)]

mod atomic;
mod connections;
mod decide;
mod emit;
mod flooded;
mod fragments;
mod judge;
mod maps;
mod own_source;
mod packet;
mod record;
mod scene;
mod subprogram;
mod whole;

use aya_ebpf::{macros::classifier, programs::TcContext};
use netverdict_abi::Direction;

/// tcx ingress on the host side of a pod's veth: what the pod sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    judge::packet(&ctx, Direction::Egress)
}

/// tcx egress there: what the pod receives.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    judge::packet(&ctx, Direction::Ingress)
}

/// What a program costs that does nothing: the floor that benches compare with.
#[classifier]
pub fn empty(_ctx: TcContext) -> i32 {
    judge::PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could reach this: nothing here panics.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
