/*
 * Ends at its first instructions: no stack, no page tables, no runtime. The start-up benchmark guest.
 * `mov $0, %al; out %al, $0xf4` has the same encoding in 32-bit and 64-bit mode, so both entries are one.
 */
__asm__(".section .note.Xen, \"a\", @note\n"
	".balign 4\n"
	".long 4, 8, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
	".asciz \"Xen\"\n"
	".quad start64\n"
	".text\n"
	".globl start64\n"
	"start64:\n"
	"	movb $0, %al\n"
	"	outb %al, $0xf4\n"
	"1:	hlt\n"
	"	jmp 1b\n");

extern const char start64[]; /* a C file must declare something */
