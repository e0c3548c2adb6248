/* Registers and bits of the PC16550D, for its decoder and its tests only; the names are the data sheet's. */
#pragma once

/* Register offsets: PC16550D section 8.0, table I. */
enum {
	RBR_THR = 0, /* receiver buffer (read), transmitter holding (write); DLL with LCR.DLAB */
	IER = 1,     /* interrupt enable; DLM with LCR.DLAB */
	IIR_FCR = 2, /* interrupt identification (read), FIFO control (write) */
	LCR = 3,
	MCR = 4,
	LSR = 5,
	MSR = 6,
	SCR = 7,
};

/* Section 8.1, line control. The word length and parity are accepted and change nothing. */
enum {
	LCR_SET_BREAK = 0x40,
	LCR_DLAB = 0x80,
};

/* Section 8.4, line status. */
enum {
	LSR_DR = 0x01,
	LSR_OE = 0x02,
	LSR_PE = 0x04,
	LSR_FE = 0x08,
	LSR_BI = 0x10,
	LSR_THRE = 0x20,
	LSR_TEMT = 0x40,
	LSR_FIFO_ERROR = 0x80,
	LSR_CHAR_ERRORS = LSR_PE | LSR_FE | LSR_BI, /* belong to one character in the FIFO */
};

/* Section 8.5, FIFO control. */
enum {
	FCR_FIFO_ENABLE = 0x01,
	FCR_RCVR_RESET = 0x02,
	FCR_XMIT_RESET = 0x04,
	FCR_TRIGGER_SHIFT = 6,
	FCR_TRIGGER = 3 << FCR_TRIGGER_SHIFT,
};

/* Section 8.6, interrupt identification, highest priority first (table IV). */
enum {
	IIR_LINE_STATUS = 0x06,
	IIR_DATA_AVAILABLE = 0x04,
	IIR_CHARACTER_TIMEOUT = 0x0c,
	IIR_THR_EMPTY = 0x02,
	IIR_MODEM_STATUS = 0x00,
	IIR_NONE = 0x01,
	IIR_FIFOS_ENABLED = 0xc0,
};

/* Section 8.7, interrupt enable. */
enum {
	IER_ERBFI = 0x01, /* received data, character timeout */
	IER_ETBEI = 0x02, /* transmitter holding register empty */
	IER_ELSI = 0x04,  /* receiver line status */
	IER_EDSSI = 0x08, /* modem status */
	IER_MASK = 0x0f,
};

/* Section 8.8, modem control. */
enum {
	MCR_DTR = 0x01,
	MCR_RTS = 0x02,
	MCR_OUT1 = 0x04,
	MCR_OUT2 = 0x08,
	MCR_LOOP = 0x10,
	MCR_MASK = 0x1f,
};

/* Section 8.9, modem status. */
enum {
	MSR_DCTS = 0x01,
	MSR_DDSR = 0x02,
	MSR_TERI = 0x04,
	MSR_DDCD = 0x08,
	MSR_CTS = 0x10,
	MSR_DSR = 0x20,
	MSR_RI = 0x40,
	MSR_DCD = 0x80,
};
