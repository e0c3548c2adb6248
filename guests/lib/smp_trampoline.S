/* Where an application processor begins: real mode, cs:ip = 0x0800:0. smp.c copies it to 0x8000. */
	.section .text.smp, "ax", @progbits
	.code16
	.globl smp_trampoline
smp_trampoline:
	cli
	lgdtl %cs:(9f - smp_trampoline)
	movl %cr0, %eax
	andl $0x9fffffff, %eax		/* CD and NW are set after INIT */
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x08, $smp_ap32
9:	.word 63
	.long gdt
	.globl smp_trampoline_end
smp_trampoline_end:
	.section .note.GNU-stack, "", @progbits
