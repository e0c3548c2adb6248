/*
 * Both ways in, and the tables that the CPU needs. All tables are filled by the assembler: a ring 0 that is
 * emulated at a million instructions a second should not spend them on filling page tables.
 *
 *   pvh_start  32-bit protected mode, paging off, ebx = hvm_start_info  (the ELF note below)
 *   start64    long mode, rsi = boot_params                             (e_entry; Linux 64-bit boot protocol)
 */
	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 8, 18			/* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad pvh_start

/* Interrupt stubs: 256 of 16 bytes at the fixed address 0x100000, so that the gates are constants. */
	.section .isr, "ax", @progbits
	.globl isr_stubs
	.code64
isr_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.if !((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
	pushq $0
	.endif
	pushq $vector
	jmp isr_common
	.set vector, vector + 1
	.endr
	.balign 16
isr_common:
	push %rax
	push %rbx
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %rbp
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	mov %rsp, %rbp
	and $-16, %rsp
	call trap_dispatch
	mov %rbp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rbp
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rbx
	pop %rax
	add $16, %rsp
	iretq

	.section .text.crt, "ax", @progbits
	.code32
	.globl pvh_start
pvh_start:
	cli
	cld
	movl $1, boot_protocol
	movl %ebx, boot_info_addr
	movl $long_bsp, %esi
	jmp enter_long

/* The application processors' trampoline (smp.c) jumps here: flat 32-bit protected mode, our GDT. */
	.globl smp_ap32
smp_ap32:
	movl $0x18, %eax		/* ds still has its real-mode limit of 64 KiB, and lgdt below reads through it */
	movl %eax, %ds
	movl $long_ap, %esi

enter_long:				/* esi: where to go on in 64-bit mode */
	lgdt gdt_pointer
	movl $0x18, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x20, %eax		/* CR4: PAE alone */
	movl %eax, %cr4
	movl $page_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER.LME */
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl $0x80000011, %eax		/* CR0: PG, ET, PE */
	movl %eax, %cr0
	ljmp $0x10, $1f
	.code64
1:	mov %esi, %esi
	jmp *%rsi

	.globl start64
start64:
	cli
	cld
	movl $2, boot_protocol
	mov %rsi, boot_info_addr
	mov $0x20, %eax			/* no SMEP, SMAP or PCID that the loader may have left on */
	mov %rax, %cr4
	mov $page_pml4, %eax
	mov %rax, %cr3
	lgdt gdt_pointer
	mov $0x18, %eax
	mov %eax, %ss
	mov $stack_top, %esp
	push $0x10
	push $long_bsp
	lretq

long_bsp:
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $stack_top, %esp
	lidt idt_pointer
	call guest_main
	movzbl %al, %edi
	call guest_exit

long_ap:
	mov $1, %eax
	lock xaddl %eax, smp_arrivals
	mov %eax, %edi
	inc %eax
	shl $11, %eax			/* 2 KiB each */
	lea smp_stacks(%rax), %rsp
	lidt idt_pointer
	call *smp_fn
1:	cli
	hlt
	jmp 1b

	.section .data.crt, "aw", @progbits
	.balign 16
	.globl gdt
gdt:	.quad 0
	.quad 0x00cf9b000000ffff	/* 0x08 code, 32-bit */
	.quad 0x00af9b000000ffff	/* 0x10 code, 64-bit */
	.quad 0x00cf93000000ffff	/* 0x18 data */
	.quad 0x00cff3000000ffff	/* 0x20 data, ring 3 */
	.quad 0x00affb000000ffff	/* 0x28 code, 64-bit, ring 3 */
	.quad 0, 0			/* 0x30 TSS, filled by user.c */
	.globl gdt_pointer
gdt_pointer:
	.word 63
	.quad gdt
	.balign 8
idt_pointer:
	.word 4095
	.quad idt

	.globl boot_protocol
	.globl boot_info_addr
	.balign 8
boot_info_addr:
	.quad 0
boot_protocol:
	.long 0

	.balign 16
idt:	.set vector, 0
	.rept 256			/* gate: offset 0x100000 + 16 * vector, selector 0x10, interrupt gate, DPL 0 */
	.word vector * 16, 0x10, 0x8e00, 0x10
	.quad 0
	.set vector, vector + 1
	.endr

/* The first 4 GiB one to one in 2 MiB pages: present, writable, user (ring3.c runs on the same tables). */
	.balign 4096
	.globl page_pml4
page_pml4:
	.quad page_pdpt + 7
	.fill 511, 8, 0
page_pdpt:
	.quad page_pd + 7, page_pd + 0x1007, page_pd + 0x2007, page_pd + 0x3007
	.fill 508, 8, 0
page_pd:
	.set page, 0
	.rept 2048
	.quad page + 0x87
	.set page, page + 0x200000
	.endr

	.section .bss.crt, "aw", @nobits
	.balign 16
	.skip 8192
	.globl stack_top
stack_top:
	.section .note.GNU-stack, "", @progbits
