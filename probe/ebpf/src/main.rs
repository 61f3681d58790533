//! The BPF programs of the probe, on the host side of a pod's veth and where packets leave the node. This file only
//! declares them; [`stages`] says what happens to a packet, in which order. The programs look up tables and know no
//! policies; every layout is declared in `netverdict-abi`.

#![no_std]
#![no_main]
// For instructions that the compiler does not offer for this target, or must not reorder: see `atomic`, `subprogram`,
// `parse`.
#![feature(asm_experimental_arch)]

mod answers;
mod atomic;
mod conclude;
mod connections;
mod conntrack;
mod decide;
mod emit;
mod flooded;
mod fragments;
mod judge;
mod maps;
mod own_node;
mod own_source;
mod packet;
mod packet_context;
mod parse;
mod record;
mod ruling;
mod source_side;
mod stages;
mod subject;
mod subprogram;
mod tuples;
mod validated_read;

use aya_ebpf::{macros::classifier, programs::TcContext};
use netverdict_abi::Direction;

use crate::parse::Link;

/// tcx ingress on the host side of a pod's veth: packets that the pod sends.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    stages::packet(&ctx, Direction::Egress)
}

/// tcx egress on the host side of a pod's veth: packets that the pod receives.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    stages::packet(&ctx, Direction::Ingress)
}

/// tcx egress of an interface over which packets leave the node, with an Ethernet header.
#[classifier]
pub fn leaving(ctx: TcContext) -> i32 {
    stages::leaving(&ctx, Link::Ethernet)
}

/// The same without a link-layer header.
#[classifier]
pub fn leaving_bare(ctx: TcContext) -> i32 {
    stages::leaving(&ctx, Link::Bare)
}

/// A program that does nothing: its cost is the floor that benches compare with.
#[classifier]
pub fn empty(_ctx: TcContext) -> i32 {
    conclude::PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier refuses a program with an endless loop that it could reach.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
