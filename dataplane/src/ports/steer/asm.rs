//! A small assembler for eBPF: instructions with labels, no toolchain.
//!
//! Encoding: RFC 9669 (BPF Instruction Set Architecture) 3 to 5. Only what the steering program needs is here. Immediates are compared as
//! signed 32-bit values extended to 64 bits, so comparisons are for values below 2^31.

/// A register. R10 is the frame pointer (read-only), R1 to R5 are arguments of helpers, R6 to R9 survive helper calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reg {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R6 = 6,
    R7 = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
}

/// Width of a load or store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
    Double,
}

impl Size {
    /// RFC 9669 5, table 10.
    fn code(self) -> u8 {
        match self {
            Size::Word => 0x00,
            Size::Half => 0x08,
            Size::Byte => 0x10,
            Size::Double => 0x18,
        }
    }
}

/// Condition of a jump against an immediate.
#[derive(Clone, Copy, Debug)]
pub(super) enum If {
    Equal,
    NotEqual,
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Why a program cannot be assembled: a mistake in the generator, which its tests find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AsmError {
    #[error("label {0} was never placed")]
    Unplaced(usize),
    #[error("instruction {0} jumps too far")]
    TooFar(usize),
}

const LDX: u8 = 0x61;
const ST: u8 = 0x62;
const STX: u8 = 0x63;
const ADD_IMMEDIATE: u8 = 0x07;
const ADD_REGISTER: u8 = 0x0f;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_LEFT_IMMEDIATE: u8 = 0x67;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_GREATER_REGISTER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_64: u8 = 0x18;
/// Of `LOAD_64`: the immediate is the descriptor of a map (RFC 9669 5.4).
const MAP_BY_FD: u8 = 1;
const ATOMIC_DOUBLE: u8 = 0xdb;
const ATOMIC_ADD: i32 = 0;

/// One instruction slot, as the kernel reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Collects instructions.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Instruction>,
    /// For each label, the instruction that it stands before.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label to be placed later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label before the next instruction.
    pub(super) fn place(&mut self, label: Label) -> &mut Self {
        let here = self.instructions.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(here);
        }
        self
    }

    fn push(&mut self, code: u8, dst: Reg, src: u8, offset: i16, immediate: i32) -> &mut Self {
        let dst = dst as u8;
        // The two registers are bit fields in C, which big-endian machines count from the other end.
        let registers = if cfg!(target_endian = "little") { dst | src << 4 } else { dst << 4 | src };
        self.instructions.push(Instruction { code, registers, offset, immediate });
        self
    }

    fn jump_to(&mut self, code: u8, dst: Reg, src: u8, immediate: i32, to: Label) -> &mut Self {
        self.jumps.push((self.instructions.len(), to));
        self.push(code, dst, src, 0, immediate)
    }

    /// `dst = *(size *)(src + offset)`
    pub(super) fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) -> &mut Self {
        self.push(LDX | size.code(), dst, src as u8, offset, 0)
    }

    /// `*(size *)(dst + offset) = src`
    pub(super) fn store(&mut self, size: Size, dst: Reg, offset: i16, src: Reg) -> &mut Self {
        self.push(STX | size.code(), dst, src as u8, offset, 0)
    }

    /// `*(size *)(dst + offset) = immediate`
    pub(super) fn store_immediate(&mut self, size: Size, dst: Reg, offset: i16, immediate: i32) -> &mut Self {
        self.push(ST | size.code(), dst, 0, offset, immediate)
    }

    /// `*(u64 *)(dst + offset) += src`, whole for all CPUs.
    pub(super) fn atomic_add(&mut self, dst: Reg, offset: i16, src: Reg) -> &mut Self {
        self.push(ATOMIC_DOUBLE, dst, src as u8, offset, ATOMIC_ADD)
    }

    /// `dst = src`
    pub(super) fn copy(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.push(MOVE_REGISTER, dst, src as u8, 0, 0)
    }

    /// `dst = immediate`
    pub(super) fn set(&mut self, dst: Reg, immediate: i32) -> &mut Self {
        self.push(MOVE_IMMEDIATE, dst, 0, 0, immediate)
    }

    /// `dst += immediate`
    pub(super) fn add(&mut self, dst: Reg, immediate: i32) -> &mut Self {
        self.push(ADD_IMMEDIATE, dst, 0, 0, immediate)
    }

    /// `dst += src`
    pub(super) fn add_register(&mut self, dst: Reg, src: Reg) -> &mut Self {
        self.push(ADD_REGISTER, dst, src as u8, 0, 0)
    }

    /// `dst &= immediate`
    pub(super) fn and(&mut self, dst: Reg, immediate: i32) -> &mut Self {
        self.push(AND_IMMEDIATE, dst, 0, 0, immediate)
    }

    /// `dst <<= bits`
    pub(super) fn shift_left(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(SHIFT_LEFT_IMMEDIATE, dst, 0, 0, bits)
    }

    /// `dst = map`, of that descriptor; takes two slots.
    pub(super) fn load_map(&mut self, dst: Reg, fd: i32) -> &mut Self {
        self.push(LOAD_64, dst, MAP_BY_FD, 0, fd);
        self.push(0, Reg::R0, 0, 0, 0)
    }

    /// `goto to`
    pub(super) fn jump(&mut self, to: Label) -> &mut Self {
        self.jump_to(JUMP, Reg::R0, 0, 0, to)
    }

    /// `if dst == immediate goto to`, or with `!=`
    pub(super) fn jump_if(&mut self, condition: If, dst: Reg, immediate: i32, to: Label) -> &mut Self {
        let code = match condition {
            If::Equal => JUMP_EQUAL,
            If::NotEqual => JUMP_NOT_EQUAL,
        };
        self.jump_to(code, dst, 0, immediate, to)
    }

    /// `if dst > src goto to`, unsigned
    pub(super) fn jump_if_greater(&mut self, dst: Reg, src: Reg, to: Label) -> &mut Self {
        self.jump_to(JUMP_GREATER_REGISTER, dst, src as u8, 0, to)
    }

    /// Calls a helper of the kernel; its result is in R0, R1 to R5 are lost.
    pub(super) fn call(&mut self, helper: i32) -> &mut Self {
        self.push(CALL, Reg::R0, 0, 0, helper)
    }

    /// Returns R0.
    pub(super) fn exit(&mut self) -> &mut Self {
        self.push(EXIT, Reg::R0, 0, 0, 0)
    }

    /// The program, with all jumps resolved.
    ///
    /// # Errors
    /// A label that was used and never placed, or a jump of more than 32,767 instructions.
    pub(super) fn finish(mut self) -> Result<Box<[Instruction]>, AsmError> {
        for (at, label) in self.jumps {
            let place = self.labels.get(label.0).copied().flatten().ok_or(AsmError::Unplaced(label.0))?;
            // Offsets count from the instruction after the jump (RFC 9669 4.3).
            let offset = i16::try_from(place as i64 - (at as i64 + 1)).map_err(|_| AsmError::TooFar(at))?;
            if let Some(instruction) = self.instructions.get_mut(at) {
                instruction.offset = offset;
            }
        }
        Ok(self.instructions.into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_the_standard_says() {
        let mut asm = Assembler::default();
        asm.load(Size::Half, Reg::R3, Reg::R7, 12).store(Size::Word, Reg::R10, -4, Reg::R3).add(Reg::R2, 14).exit();
        let words: Vec<[u8; 8]> = asm
            .finish()
            .unwrap()
            .iter()
            .map(|i| {
                let (offset, immediate) = (i.offset.to_le_bytes(), i.immediate.to_le_bytes());
                [i.code, i.registers, offset[0], offset[1], immediate[0], immediate[1], immediate[2], immediate[3]]
            })
            .collect();
        // As `llvm-objdump -d` prints the same instructions of a compiled program.
        assert_eq!(words[0], [0x69, 0x73, 0x0c, 0, 0, 0, 0, 0]);
        assert_eq!(words[1], [0x63, 0x3a, 0xfc, 0xff, 0, 0, 0, 0]);
        assert_eq!(words[2], [0x07, 0x02, 0, 0, 0x0e, 0, 0, 0]);
        assert_eq!(words[3], [0x95, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(size_of::<Instruction>(), 8);
    }

    #[test]
    fn jumps_go_both_ways_over_maps_of_two_slots() {
        let mut asm = Assembler::default();
        let (back, forth) = (asm.label(), asm.label());
        asm.place(back).jump(forth).load_map(Reg::R1, 3).place(forth).jump(back).exit();
        let program = asm.finish().unwrap();
        assert_eq!(program.iter().map(|i| i.offset).collect::<Vec<_>>(), [2, 0, 0, -4, 0]);
    }

    #[test]
    fn mistakes_are_told() {
        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert_eq!(asm.finish().unwrap_err(), AsmError::Unplaced(0));
        let mut asm = Assembler::default();
        let far = asm.label();
        asm.jump(far);
        for _ in 0..40_000 {
            asm.set(Reg::R0, 0);
        }
        asm.place(far).exit();
        assert_eq!(asm.finish().unwrap_err(), AsmError::TooFar(0));
    }
}
